//! System and conformance tests: one binary, a module per topic.

mod clients;
mod docs;
mod feed;
mod servers;
mod tidy;
