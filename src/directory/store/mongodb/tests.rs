//! What becomes of the directory when MongoDB is not as it should be.
