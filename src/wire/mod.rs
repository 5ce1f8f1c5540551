//! Messages and contents to Ion binary and back; nothing outside this module names `ion_rs`.
//!
//! Bytes from outside pass the [`gate`] before any decoder sees them. A message's contents stay encoded, with the symbol table they
//! need, until somebody asks for them: routing and forwarding never decode them.
