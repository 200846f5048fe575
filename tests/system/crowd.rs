//! A reconnect storm at a real edge whose session service is slow: more sessions want to begin than may wait. Rows 12
//! and 17 of the fault model; the lines are those of `upstream/admission.rs`.

use crate::relay::{Ws, metric};
use crate::sockets::{stored_event, upgrade};
use futures_util::{SinkExt, StreamExt};
use plaza_tests::cluster::{Cluster, Service};
use plaza_tests::proxy::{Faults, Proxy, Way};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{Barrier, mpsc};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_tungstenite::connect_async;
use tokio_tungstenite::tungstenite::Message;

/// Sessions that begin: 1,024 may wait, and few hundred more are on their way to the service.
const NEW: usize = 1_800;
/// Sessions that were here before.
const KNOWN: usize = 100;
/// Messages that those missed, and that come while they come back.
const MISSED: usize = 30;
/// A call of the session service takes this long, and brings 64 sessions at most: 200 a second.
const SLOW: Duration = Duration::from_millis(300);
/// How long anybody may be without a word: the crowd needs some ten seconds when nothing else runs.
const PATIENCE: Duration = Duration::from_secs(60);
/// New ones that a session which continues overtakes at least. Some 300 have been handed to the service before.
const OVERTAKEN: usize = 200;
/// The last message.
const END: &str = "end";

/// A client of one of the protocols.
#[derive(Clone, Debug, Default)]
struct Client {
    is_plaza: bool,
    /// Plaza's ticket, or the pid.
    session: String,
    position: String,
    seen: Vec<String>,
}

/// How a client got in.
#[derive(Debug)]
struct Entry {
    /// When it asked for the last time.
    asked: Instant,
    in_at: Instant,
    /// How long it was told to stay away, each time that it was refused; Socket.IO has no word for it.
    refused: Vec<Option<u64>>,
}

/// What the edge says.
enum Said {
    /// The session is open.
    In,
    /// Come back after so many milliseconds.
    Later(u64),
    /// The connection has ended with this code.
    Closed(u16),
    Other,
}

impl Client {
    fn new(is_plaza: bool) -> Self {
        Self { is_plaza, ..Self::default() }
    }

    async fn connect(&self, edge: SocketAddr) -> Ws {
        connect_async(upgrade(edge, self.is_plaza)).await.expect("the edge takes sockets").0
    }

    /// What opens a session, or continues it.
    fn hello(&self) -> String {
        if self.is_plaza {
            return json!({ "hello": { "resume": self.session } }).to_string();
        }
        let mut auth = json!({ "room": "r", "format": "event" });
        if !self.session.is_empty() {
            (auth["pid"], auth["offset"]) = (self.session.as_str().into(), self.position.as_str().into());
        }
        format!("40{auth}")
    }

    /// Gets in, however often it is refused. `together`: it connects, and waits for the others before its first word.
    async fn enter(&mut self, edge: SocketAddr, mut together: Option<Arc<Barrier>>) -> (Ws, Entry) {
        let mut refused = Vec::new();
        loop {
            let mut ws = self.connect(edge).await;
            if let Some(together) = together.take() {
                together.wait().await;
            }
            let asked = Instant::now();
            // The edge may have closed by now: who says nothing for long is no client.
            let _closed = ws.send(Message::text(self.hello())).await;
            let mut later = None;
            let code = loop {
                match self.hear(&mut ws).await {
                    Said::In => return (ws, Entry { asked, in_at: Instant::now(), refused }),
                    Said::Later(ms) => later = Some(ms),
                    Said::Closed(code) => break code,
                    Said::Other => {}
                }
            };
            if code != 1008 {
                assert_eq!((code, later.is_some()), if self.is_plaza { (4503, true) } else { (1013, false) });
                refused.push(later);
            }
            // A stock client waits 1 s, doubled up to 5 s, half more or less.
            let doubled = 1_000 << refused.len().saturating_sub(1).min(3);
            let own = || (doubled.min(5_000) as f64 * (0.5 + fastrand::f64())) as u64;
            tokio::time::sleep(Duration::from_millis(later.unwrap_or_else(own))).await;
        }
    }

    /// Is in the room, from where it stood.
    async fn join(&mut self, ws: &mut Ws) {
        if !self.is_plaza {
            return;
        }
        let mut join = json!({ "room": "r" });
        if !self.position.is_empty() {
            join["after"] = self.position.as_str().into();
        }
        ws.send(Message::text(json!({ "id": 7, "join": join }).to_string())).await.unwrap();
        loop {
            let text = next(ws).await.expect("nobody who is in is sent away");
            let frame: Value = serde_json::from_str(&text).unwrap();
            if frame["joined"].is_object() {
                assert_eq!(frame["joined"]["recovered"] == true, !self.position.is_empty(), "{text}");
                return;
            }
            self.note(&text);
        }
    }

    /// Reads to the last message.
    async fn read(&mut self, ws: &mut Ws) {
        while self.seen.last().is_none_or(|last| last != END) {
            let text = next(ws).await.expect("nobody who is in is sent away");
            if text == "2" {
                ws.send(Message::text("3")).await.unwrap();
            }
            self.note(&text);
        }
    }

    async fn hear(&mut self, ws: &mut Ws) -> Said {
        let text = match next(ws).await {
            Ok(text) => text,
            Err(code) => return Said::Closed(code),
        };
        let (opened, fields) = match self.is_plaza {
            true => {
                let mut frame: Value = serde_json::from_str(&text).unwrap();
                if let Some(ms) = frame["reconnect"]["afterMs"].as_u64() {
                    return Said::Later(ms);
                }
                (frame["welcome"].is_object(), frame["welcome"].take())
            }
            false => {
                (text.starts_with("40"), serde_json::from_str(text.get(2..).unwrap_or_default()).unwrap_or_default())
            }
        };
        self.note(&text);
        if !opened {
            return Said::Other;
        }
        let session =
            fields[if self.is_plaza { "ticket" } else { "pid" }].as_str().expect("one to continue").to_owned();
        if !self.session.is_empty() {
            let same = if self.is_plaza { fields["resumed"] == true } else { session == self.session };
            assert!(same, "the session does not go on: {text}");
        }
        self.session = session;
        Said::In
    }

    /// Keeps what is said in the room.
    fn note(&mut self, text: &str) {
        let Some((position, event)) = stored_event(text, self.is_plaza) else { return };
        self.position = position;
        self.seen.extend(event["text"].as_str().map(str::to_owned));
    }
}

/// The next text; or the code of the close, 1005 for none.
async fn next(ws: &mut Ws) -> Result<String, u16> {
    loop {
        match timeout(PATIENCE, ws.next()).await.expect("something comes, or the end") {
            Some(Ok(Message::Text(text))) => return Ok(text.to_string()),
            Some(Ok(Message::Close(frame))) => return Err(frame.map_or(1005, |frame| frame.code.into())),
            Some(Ok(_)) => {}
            Some(Err(_)) | None => return Err(1005),
        }
    }
}

async fn admitted(edge: &Service, class: &str, result: &str) -> f64 {
    metric(edge, &format!("plaza_admissions_total{{class=\"{class}\",result=\"{result}\"}}")).await
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_that_continue_overtake_a_crowd_of_new_ones_and_everybody_gets_in() {
    let mut cluster = Cluster::start(0).await;
    let link = Proxy::start(Some(cluster.session.addr)).await;
    cluster.session.addr = link.addr();
    cluster.add_edge(&["--message-rate", "0"]).await;
    let edge = &cluster.edges[0];
    let addr = edge.addr;

    // Somebody talks, some were here and have gone.
    let mut writer = Client::new(true);
    let (mut ws, _) = writer.enter(addr, None).await;
    writer.join(&mut ws).await;
    for frame in
        [json!({ "setUsername": { "username": "ada" } }), json!({ "publish": { "room": "r", "text": "first" } })]
    {
        ws.send(Message::text(frame.to_string())).await.unwrap();
    }
    while writer.seen.is_empty() {
        let text = next(&mut ws).await.unwrap();
        writer.note(&text);
    }
    let mut known = Vec::new();
    for n in 0..KNOWN {
        let mut client = Client::new(n % 2 == 0);
        let (mut ws, _) = client.enter(addr, None).await;
        client.join(&mut ws).await;
        known.push((client, ws));
    }
    ws.send(Message::text(json!({ "publish": { "room": "r", "text": "all are here" } }).to_string())).await.unwrap();
    for (client, ws) in &mut known {
        while client.seen.is_empty() {
            let text = next(ws).await.unwrap();
            client.note(&text);
        }
    }
    let known: Vec<Client> = known.into_iter().map(|(client, _ws)| client).collect();
    let say = |text: String| Message::text(json!({ "publish": { "room": "r", "text": text } }).to_string());
    for n in 0..MISSED / 2 {
        ws.send(say(format!("missed {n}"))).await.unwrap();
    }

    // The crowd comes, and then those who were here.
    let down = Way { latency: SLOW, ..Way::default() };
    link.set(Faults { down, ..Faults::default() });
    let together = Arc::new(Barrier::new(NEW + 1));
    let (report, mut entries) = mpsc::channel(NEW + KNOWN);
    let mut crowd = JoinSet::new();
    let come = |crowd: &mut JoinSet<Client>, mut client: Client, together: Option<Arc<Barrier>>| {
        let report = report.clone();
        crowd.spawn(async move {
            let (mut ws, entry) = client.enter(addr, together).await;
            let _ = report.send((!client.position.is_empty(), entry)).await;
            client.join(&mut ws).await;
            client.read(&mut ws).await;
            client
        });
    };
    for n in 0..NEW {
        come(&mut crowd, Client::new(n % 2 == 0), Some(together.clone()));
    }
    timeout(PATIENCE, together.wait()).await.expect("the crowd is there");
    let begin = Instant::now();
    while admitted(edge, "new", "busy").await == 0.0 {
        assert!(begin.elapsed() < PATIENCE, "the line of new sessions is never full");
    }
    let mut before = known.clone();
    for client in known {
        come(&mut crowd, client, None);
    }
    for n in MISSED / 2..MISSED {
        ws.send(say(format!("missed {n}"))).await.unwrap();
    }

    // Everybody gets in.
    let (mut new, mut back) = (Vec::new(), Vec::new());
    let end = tokio::time::Instant::now() + PATIENCE;
    while new.len() + back.len() < NEW + KNOWN {
        let (continues, entry) = tokio::select! {
            entry = entries.recv() => entry.unwrap(),
            // Who talks also hears, or it would not be there for long.
            text = next(&mut ws) => {
                writer.note(&text.expect("nobody who is in is sent away"));
                continue;
            }
            () = tokio::time::sleep_until(end) => panic!("{} of {NEW} new, {} of {KNOWN}", new.len(), back.len()),
        };
        if continues { &mut back } else { &mut new }.push(entry);
    }
    link.heal();
    ws.send(say(END.to_owned())).await.unwrap();

    // Nobody who was here lacks a word or has one twice, and the last word comes to all.
    let all: Vec<String> = (0..MISSED).map(|n| format!("missed {n}")).chain([END.to_owned()]).collect();
    while let Some(client) = crowd.join_next().await {
        let client = client.expect("a client that ended well");
        match before.iter().position(|before| client.seen.starts_with(&before.seen)) {
            Some(place) => {
                let before = before.swap_remove(place);
                assert_eq!(client.seen[before.seen.len()..], all);
            }
            None => assert!(all.ends_with(&client.seen), "{:?}", client.seen),
        }
    }
    assert!(before.is_empty(), "{} did not come back", before.len());

    // Sessions that continue were never refused, and each overtook those who had asked before.
    assert_eq!(admitted(edge, "resume", "busy").await, 0.0);
    assert!(back.iter().all(|entry| entry.refused.is_empty()));
    let overtaken = |back: &Entry| new.iter().filter(|new| new.asked < back.asked && new.in_at > back.in_at).count();
    let overtaken = back.iter().map(overtaken).min().unwrap();
    assert!(overtaken >= OVERTAKEN, "{overtaken} new sessions were overtaken");

    // Who was refused was told when to come again, each another time.
    let mut told: Vec<u64> = new.iter().flat_map(|entry| entry.refused.iter().flatten().copied()).collect();
    told.sort_unstable();
    let (least, middle, most) = (told[0], told[told.len() / 2], told[told.len() - 1]);
    assert!(least < middle / 2 && middle * 3 / 2 < most, "{told:?}");
}
