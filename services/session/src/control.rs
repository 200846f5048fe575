//! Commands to edges, at once: sent through fanout at most once. Each is kept in the store as well,
//! and the edge's next heartbeat repeats what was lost here.

use crate::metrics::SessionMetrics;
use crate::store::ForEdge;
use plaza_kit::discovery::BalancedChannel;
use plaza_kit::grpc::within;
use plaza_kit::shutdown::Shutdown;
use plaza_proto::fanout::ControlRequest;
use plaza_proto::fanout::fanout_service_client::FanoutServiceClient;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;

/// The call that sends one.
const CONTROL: &str = "plaza.fanout.v1.FanoutService/Control";
/// Sends under way at once; beyond it a command waits for the heartbeat.
const IN_FLIGHT: usize = 64;
/// Longest wait for one send.
const DEADLINE: Duration = Duration::from_secs(2);

/// Sends commands without making anybody wait. Cheap to clone.
#[derive(Clone, Debug)]
pub struct ControlSender {
    fanout: Option<FanoutServiceClient<BalancedChannel>>,
    permits: Arc<Semaphore>,
    metrics: SessionMetrics,
    shutdown: Shutdown,
}

impl ControlSender {
    /// Without `fanout` all commands wait for the heartbeat.
    pub fn new(fanout: Option<BalancedChannel>, metrics: SessionMetrics, shutdown: Shutdown) -> Self {
        let permits = Arc::new(Semaphore::new(IN_FLIGHT));
        Self { fanout: fanout.map(FanoutServiceClient::new), permits, metrics, shutdown }
    }

    /// Begins to send a command. What becomes of it is only counted.
    pub fn send(&self, command: ForEdge) {
        let Some(mut fanout) = self.fanout.clone() else { return };
        let Ok(permit) = Arc::clone(&self.permits).try_acquire_owned() else {
            self.metrics.control("skipped");
            return;
        };
        let metrics = self.metrics.clone();
        self.shutdown.spawn("control", async move {
            let request = ControlRequest { edge: command.edge, command: Some(command.command) };
            let sent = metrics.made.make(CONTROL, DEADLINE, fanout.control(within(DEADLINE, request))).await;
            metrics.control(if sent.is_ok() { "sent" } else { "failed" });
            drop(permit);
        });
    }
}
