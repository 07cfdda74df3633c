//! What is exposed about direct server return.

use super::prometheus::Page;

/// A service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DsrServiceSample {
    /// The listener.
    pub listener: String,
    /// Address and port.
    pub vip: String,
    /// `TCP` or `UDP`.
    pub protocol: &'static str,
    /// Frames forwarded.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Flows remembered since the start.
    pub flows: u64,
    /// New flows over the cap.
    pub capped: u64,
    /// Each server and whether it gets new flows.
    pub servers: Vec<(String, bool)>,
}

/// Everything about direct server return.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DsrSamples {
    /// The program's counters by name.
    pub frames: Vec<(&'static str, u64)>,
    /// Services.
    pub services: Vec<DsrServiceSample>,
    /// Servers: address, frames, bytes.
    pub servers: Vec<(String, u64, u64)>,
    /// Flows remembered, and room for them.
    pub flows: (u64, u64),
    /// Tables filled since the start.
    pub tables_built: u64,
    /// Whether the guard rule is in force.
    pub guarded: bool,
}

/// Name, help, and the value of a sample.
type Family<T> = (&'static str, &'static str, fn(&T) -> u64);

/// As a piece of a page.
pub fn render_dsr(samples: &DsrSamples) -> String {
    let mut page = Page::default();
    let name = "ringway_dsr_frames_total";
    page.family(name, "counter", "Frames that the XDP program met, by what became of them and of their flows.");
    for (result, count) in &samples.frames {
        page.sample(name, &[("result", result)], count);
    }
    let per_service: [Family<DsrServiceSample>; 4] = [
        ("ringway_dsr_service_frames_total", "Frames forwarded for a service.", |each| each.packets),
        ("ringway_dsr_service_bytes_total", "Bytes forwarded for a service.", |each| each.bytes),
        ("ringway_dsr_service_flows_total", "Flows of a service that were remembered.", |each| each.flows),
        ("ringway_dsr_service_flows_capped_total", "New flows over the cap: forwarded, not remembered.", |each| {
            each.capped
        }),
    ];
    for (name, help, value) in per_service {
        page.family(name, "counter", help);
        for each in &samples.services {
            let labels = [("listener", each.listener.as_str()), ("vip", &each.vip), ("protocol", each.protocol)];
            page.sample(name, &labels, value(each));
        }
    }
    let name = "ringway_dsr_server_up";
    page.family(name, "gauge", "Whether a service's server gets new flows.");
    for each in &samples.services {
        for (server, up) in &each.servers {
            let labels = [("vip", each.vip.as_str()), ("protocol", each.protocol), ("server", server)];
            page.sample(name, &labels, u8::from(*up));
        }
    }
    let per_server: [Family<(String, u64, u64)>; 2] = [
        ("ringway_dsr_server_frames_total", "Frames forwarded to a server.", |each| each.1),
        ("ringway_dsr_server_bytes_total", "Bytes forwarded to a server.", |each| each.2),
    ];
    for (name, help, value) in per_server {
        page.family(name, "counter", help);
        for each in &samples.servers {
            page.sample(name, &[("server", &each.0)], value(each));
        }
    }
    let gauges = [
        ("ringway_dsr_flows", "Flows remembered.", samples.flows.0),
        ("ringway_dsr_flows_limit", "Flows that there is room for.", samples.flows.1),
        ("ringway_dsr_guarded", "Whether the guard rule is in force.", samples.guarded.into()),
    ];
    for (name, help, value) in gauges {
        page.family(name, "gauge", help);
        page.sample(name, &[], value);
    }
    page.family("ringway_dsr_tables_built_total", "counter", "Maglev tables filled since the start.");
    page.sample("ringway_dsr_tables_built_total", &[], samples.tables_built);
    page.into_text()
}
