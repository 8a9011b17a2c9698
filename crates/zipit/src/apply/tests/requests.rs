//! What surgery calls things, and what it refuses.
