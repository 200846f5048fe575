//! System and conformance tests: one binary, a module per topic.

mod clients;
mod servers;
