//! System and conformance tests: one binary, a module per topic.

#![allow(clippy::unwrap_used, reason = "helpers of tests end the test where they cannot go on")]

mod check;
mod clients;
mod connections;
mod crowd;
mod docs;
mod drain;
mod fanout_cases;
mod fanout_log;
mod fanout_service;
mod feed;
mod hub;
mod leases;
mod limits;
mod logs;
mod nats_three;
mod origins;
mod programs;
mod recovery;
mod redis_failover;
mod relay;
mod servers;
mod session_service;
mod session_store;
mod shed;
mod slow;
mod sockets;
mod tidy;
mod trace;
mod whole;
