//! A service process on a database of its own.
