//! The edge: terminates the sockets.

pub mod web;
