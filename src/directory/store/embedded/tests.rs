//! What the embedded store promises beyond the contract: it comes back, and says what is wrong.
