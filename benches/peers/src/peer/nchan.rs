//! nchan, the pub/sub module of nginx: WebSocket for subscribers and publishers.

use std::{fs, path::Path, process::Command};

use super::{Peer, Step, Subscriber, program, says_version};

const MODULE: &str = "/usr/lib/nginx/modules/ngx_nchan_module.so";

pub(super) struct Nchan;

impl Peer for Nchan {
    fn name(&self) -> &'static str {
        "nchan"
    }

    fn version(&self) -> anyhow::Result<String> {
        anyhow::ensure!(Path::new(MODULE).exists(), "Debian's libnginx-mod-nchan is not installed");
        Ok(format!("of Debian on nginx {}", says_version(&program("nginx"), "-v")?))
    }

    fn manner(&self) -> &'static str {
        "WebSocket; 256 messages for 5 minutes, in memory"
    }

    /// It keeps as many messages for as long as XPUSH's `recent`.
    fn command(&self, folder: &Path, port: u16) -> anyhow::Result<Command> {
        let folders: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|name| format!("  {name}_temp_path {}/{name};\n", folder.display()))
            .concat();
        let path = folder.join("nginx.conf");
        fs::write(
            &path,
            format!(
                "load_module {MODULE};
daemon off;
worker_processes 1;
worker_rlimit_nofile 20000;
pid {folder}/nginx.pid;
error_log stderr error;
events {{ worker_connections 19900; }}
http {{
{folders}  access_log off;
  nchan_shared_memory_size 512M;
  nchan_message_buffer_length 256;
  nchan_message_timeout 5m;
  server {{
    listen 127.0.0.1:{port} backlog=1024;
    location ~ ^/sub/(.+)$ {{ nchan_subscriber websocket; nchan_channel_id $1; }}
    location ~ ^/pub/(.+)$ {{ nchan_publisher websocket; nchan_channel_id $1; }}
  }}
}}
",
                folder = folder.display()
            ),
        )?;
        let mut command = Command::new(program("nginx"));
        command.arg("-p").arg(folder).arg("-c").arg(path).args(["-e", "stderr"]);
        Ok(command)
    }

    fn subscriber(&self, client: &Subscriber<'_>) -> Vec<Step> {
        vec![Step::upgrade(client.port, &format!("/sub/{}", client.channel))]
    }

    fn publisher(&self, port: u16, channel: &str) -> Vec<Step> {
        vec![Step::upgrade(port, &format!("/pub/{channel}"))]
    }
}
