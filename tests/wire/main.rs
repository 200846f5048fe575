//! The wire reference, row by row: raw bytes on real sockets against the `wire_profile` example of
//! the edge, and, with `PLAZA_WIRE_TARGET=host:port`, against any other server set up in the same way
//! (`tests/clients/reference.mjs` is the reference implementation); and the Autobahn suite on the raw echo.
//!
//! Each test is named after its row. Rows that need recovery or a second edge are tested with those
//! features: E8's second half, S4, and everything under R and N.

mod autobahn;
mod engineio;
mod hostile;
mod http;
mod polling;
mod socketio;
mod target;
mod websocket;
mod ws;
