//! The steps of the check, in order; the first that fails is the last.

use super::sockets::{Plaza, SocketIo};
use super::{Config, Step};
use plaza_kit::shutdown::Shutdown;
use plaza_proto::session::session_service_client::SessionServiceClient;
use plaza_proto::session::{GetSessionRequest, Session};
use serde_json::json;
use std::time::{Duration, Instant};

/// Runs all steps until one fails, and tells each.
pub(super) fn run(config: &Config, mut tell: impl FnMut(Step)) -> Result<(), ()> {
    let deadline = Instant::now() + config.timeout;
    let Config { edge, room, .. } = config;
    let mark = format!("{:08x}", fastrand::u32(..));
    let username = format!("check-{mark}");
    let text = format!("plaza check {mark}");
    let mut take = |name, step: &mut dyn FnMut() -> Result<String, String>| {
        let begin = Instant::now();
        let outcome = step();
        let failed = outcome.is_err();
        tell(Step { name, took: begin.elapsed(), outcome });
        if failed { Err(()) } else { Ok(()) }
    };

    let (mut plaza, mut session) = (None, String::new());
    take("connect", &mut || {
        let mut client = Plaza::open(edge, deadline)?;
        let welcome = client.ask(json!({"hello": {"locale": "en"}}), "welcome")?;
        session = welcome["sessionId"].as_str().unwrap_or_default().to_owned();
        plaza = Some(client);
        Ok(format!("http://{edge} speaks plaza.v1.json; session {session}"))
    })?;
    let Some(mut plaza) = plaza else { return Err(()) };
    take("name", &mut || {
        plaza.ask(json!({"setUsername": {"username": username}}), "ok")?;
        Ok(format!("{username}, kept by the session service"))
    })?;
    take("join", &mut || {
        let joined = plaza.ask(json!({"join": {"room": room}}), "joined")?;
        Ok(format!("{room}, {} present", joined["members"]))
    })?;
    let mut socketio = None;
    take("socket.io", &mut || {
        let (client, sid) = SocketIo::open(edge, &json!({"room": room, "locale": "en"}), deadline)?;
        socketio = Some(client);
        Ok(format!("a second client joined the room by Socket.IO; session {sid}"))
    })?;
    let Some(mut socketio) = socketio else { return Err(()) };
    let mut message = String::new();
    take("send", &mut || {
        let body = json!({"publish": {"room": room, "text": text, "clientId": mark}});
        let published = plaza.ask(body, "published")?;
        message = published["id"].as_str().unwrap_or_default().to_owned();
        Ok(format!("stored at {}", published["position"]))
    })?;
    let lost = |error| format!("the message is stored but does not come back: {error}; do the edges reach NATS?");
    take("receive", &mut || {
        let event = plaza.event(&message).map_err(lost)?;
        Ok(format!("own message came back, from {}", event["username"]))
    })?;
    take("deliver", &mut || {
        socketio.message(&format!("{username}:{text}")).map_err(lost)?;
        Ok("the same message reached the Socket.IO client".to_owned())
    })?;
    take("session", &mut || {
        let found = get_session(config, &session, deadline)?;
        if found.username != username || !found.rooms.contains(room) {
            return Err(format!("it has {:?} in {:?}, not {username} in {room}", found.username, found.rooms));
        }
        Ok(format!("{} knows {username} on edge {}", config.session_name, found.edge))
    })
}

/// Asks the session service over gRPC, as a backend would.
fn get_session(config: &Config, id: &str, deadline: Instant) -> Result<Session, String> {
    let name = &config.session_name;
    let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| error.to_string())?;
    runtime
        .block_on(async {
            let shutdown = Shutdown::new();
            let ask = async {
                let mut known = config.session.endpoints(&shutdown);
                // Without an address the channel would wait, and the reason would be hidden.
                known.wait_for(|endpoints| !endpoints.is_empty()).await.map_err(|error| error.to_string())?;
                let mut client = SessionServiceClient::new(config.session.channel(&shutdown));
                let request = GetSessionRequest { session_id: id.to_owned() };
                client
                    .get_session(request)
                    .await
                    .map_err(|status| format!("{name} answers {:?}: {}", status.code(), status.message()))
            };
            let answer = tokio::time::timeout(left, ask).await;
            answer.map_err(|_| {
                format!(
                    "{name} did not answer in time; does the name resolve, and does a session service listen there?"
                )
            })?
        })
        .map(tonic::Response::into_inner)
}
