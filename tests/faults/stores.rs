//! The stores: NATS, as one server or as three that keep the stream together, and Redis, as one server or as a
//! master with a replica that three sentinels promote.

use plaza_proto::subject::STREAM;
use plaza_tests::nats::NatsServer;
use plaza_tests::nats_cluster::NatsCluster;
use plaza_tests::process::Process;
use plaza_tests::redis::RedisServer;
use plaza_tests::redis_sets::RedisFailover;

/// Redis.
#[derive(Debug)]
pub(crate) enum Redis {
    One(RedisServer),
    Watched(Box<RedisFailover>),
}

impl Redis {
    /// Starts one server, or two and their sentinels.
    pub(crate) async fn start(sentinels: bool) -> Self {
        if sentinels {
            Self::Watched(RedisFailover::start().await.into())
        } else {
            Self::One(RedisServer::start().await)
        }
    }

    /// The two servers.
    ///
    /// # Panics
    /// With one.
    pub(crate) fn watched(&self) -> &RedisFailover {
        match self {
            Self::Watched(servers) => servers,
            Self::One(_) => panic!("the row is made for two servers"),
        }
    }

    pub(crate) fn process(&self, server: usize) -> &Process {
        match self {
            Self::One(one) => one.process(),
            Self::Watched(servers) => servers.process(server),
        }
    }

    /// Ends the only server at once.
    ///
    /// # Panics
    /// With two.
    pub(crate) fn kill(&mut self) {
        self.single().kill();
    }

    /// Starts the only server again, empty.
    ///
    /// # Panics
    /// With two.
    pub(crate) async fn restart(&mut self) {
        self.single().restart().await;
    }

    /// Starts what was killed, and lets go on what was stopped.
    pub(crate) async fn mend(&mut self) {
        match self {
            Self::One(one) if !one.runs() => one.restart().await,
            Self::One(one) => one.process().signal("CONT"),
            Self::Watched(servers) => {
                (0..2).for_each(|n| servers.process(n).signal("CONT"));
                servers.mend().await;
            }
        }
    }

    fn single(&mut self) -> &mut RedisServer {
        match self {
            Self::One(one) => one,
            Self::Watched(_) => panic!("the row is made for one server"),
        }
    }
}

/// The servers.
#[derive(Debug)]
pub(crate) enum Nats {
    One(NatsServer),
    Three(NatsCluster),
}

impl Nats {
    /// Starts so many.
    pub(crate) async fn start(servers: usize) -> Self {
        if servers == 3 { Self::Three(NatsCluster::start().await) } else { Self::One(NatsServer::start().await) }
    }

    /// One URL for each.
    pub(crate) fn urls(&self) -> Vec<String> {
        match self {
            Self::One(server) => vec![server.url()],
            Self::Three(servers) => (0..3).map(|n| servers.url(n)).collect(),
        }
    }

    /// The only server.
    ///
    /// # Panics
    /// With three.
    pub(crate) fn single(&self) -> &NatsServer {
        match self {
            Self::One(server) => server,
            Self::Three(_) => panic!("the row is made for one server"),
        }
    }

    /// A connection past every proxy.
    pub(crate) async fn client(&self) -> Result<async_nats::Client, String> {
        async_nats::connect(self.urls().join(",")).await.map_err(|e| format!("NATS does not answer: {e}"))
    }

    /// Which of them leads the stream.
    pub(crate) async fn leader(&self) -> usize {
        match self {
            Self::One(_) => 0,
            Self::Three(servers) => servers.leader(STREAM).await,
        }
    }

    /// Waits until all of them have what is stored.
    pub(crate) async fn settled(&self) {
        if let Self::Three(servers) = self {
            servers.settled(STREAM).await;
        }
    }

    pub(crate) fn process(&self, server: usize) -> &Process {
        match self {
            Self::One(one) => one.process(),
            Self::Three(servers) => servers.process(server),
        }
    }

    pub(crate) fn kill(&mut self, server: usize) {
        match self {
            Self::One(one) => one.kill(),
            Self::Three(servers) => servers.kill(server),
        }
    }

    /// Starts what was killed, and lets go on what was stopped.
    pub(crate) async fn mend(&mut self) {
        for n in 0..self.urls().len() {
            let runs = match self {
                Self::One(one) => one.runs(),
                Self::Three(servers) => servers.runs(n),
            };
            if runs {
                self.process(n).signal("CONT");
            } else {
                self.restart(n).await;
            }
        }
        self.settled().await;
    }

    /// Starts one again, with what it has stored.
    pub(crate) async fn restart(&mut self, server: usize) {
        match self {
            Self::One(one) => one.restart().await,
            Self::Three(servers) => servers.restart(server).await,
        }
    }
}
