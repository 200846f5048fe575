//! What the process takes of its machine, under the names that Prometheus' own libraries use. Read from
//! `/proc` when it is asked for; where there is none, there are no metrics.

use std::fs;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

/// Clock ticks a second: what every Linux tells programs.
const TICKS: f64 = 100.0;

/// The collector.
#[derive(Debug)]
pub(super) struct Process {
    began: f64,
}

impl Process {
    /// It begins now.
    pub(super) fn new() -> Self {
        Self { began: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64()) }
    }
}

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let mut gauge = |name: &str, help: &str, value: f64| {
            let metric = ConstGauge::new(value);
            metric.encode(encoder.encode_descriptor(name, help, None, metric.metric_type())?)
        };
        gauge("process_start_time_seconds", "When the process began, in seconds since 1970", self.began)?;
        let bytes = fs::read_to_string("/proc/self/status").ok().and_then(|text| resident_bytes(&text));
        if let Some(bytes) = bytes {
            gauge("process_resident_memory_bytes", "Memory that the process has in use", bytes)?;
        }
        if let Some(open) = open_descriptors() {
            gauge("process_open_fds", "Open descriptors: sockets, files and others", open)?;
        }
        if let Some(most) = descriptor_limit() {
            gauge("process_max_fds", "Descriptors that the process may have", most as f64)?;
        }
        if let Some(seconds) = fs::read_to_string("/proc/self/stat").ok().and_then(|text| cpu_seconds(&text)) {
            let metric = ConstCounter::new(seconds);
            let help = "Processor time of the process, in seconds";
            metric.encode(encoder.encode_descriptor("process_cpu_seconds", help, None, metric.metric_type())?)?;
        }
        Ok(())
    }
}

/// The kernel tells the number as the folder's size, since 6.2; counting takes longer.
fn open_descriptors() -> Option<f64> {
    let folder = Path::new("/proc/self/fd");
    let told = fs::metadata(folder).ok()?.len();
    Some(if told > 0 { told as f64 } else { fs::read_dir(folder).ok()?.count() as f64 })
}

fn resident_bytes(status: &str) -> Option<f64> {
    let kilobytes = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(kilobytes.trim().strip_suffix(" kB")?.parse::<f64>().ok()? * 1024.0)
}

/// Descriptors that the process may have; `None` where the system does not tell, or sets no limit.
pub fn descriptor_limit() -> Option<u64> {
    descriptor_limit_in(&fs::read_to_string("/proc/self/limits").ok()?)
}

fn descriptor_limit_in(limits: &str) -> Option<u64> {
    let soft = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    soft.split_whitespace().next()?.parse().ok()
}

/// Fields 14 and 15, counted behind the program's name, which may hold anything.
fn cpu_seconds(stat: &str) -> Option<f64> {
    let (_, fields) = stat.rsplit_once(") ")?;
    let mut ticks = fields.split(' ').skip(11).map(str::parse::<f64>);
    Some((ticks.next()?.ok()? + ticks.next()?.ok()?) / TICKS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_says_is_read() {
        assert_eq!(resident_bytes("VmPeak:\t  9 kB\nVmRSS:\t   100 kB\n"), Some(102_400.0));
        let limits = "Max open files            1024                 524288               files\n";
        assert_eq!(descriptor_limit_in(limits), Some(1024));
        let stat = "7 (a) b) S 1 7 7 0 -1 4194304 100 0 0 0 250 50 0 0 20 0 1 0";
        assert_eq!(cpu_seconds(stat), Some(3.0));
        assert_eq!((resident_bytes(""), descriptor_limit_in("x"), cpu_seconds("1 (a) S")), (None, None, None));
    }
}
