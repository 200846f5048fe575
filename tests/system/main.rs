//! System and conformance tests: one binary, a module per topic.

mod clients;
mod docs;
mod fanout_cases;
mod fanout_log;
mod fanout_service;
mod feed;
mod hub;
mod servers;
mod session_service;
mod session_store;
mod tidy;
