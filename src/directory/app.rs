//! Apps: what one installation keeps apart, and the policy of each.
