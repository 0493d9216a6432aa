//! Endpoints for administration, as an operator and tools for the reference service use them.
