//! What a broker says when it is ready: where it is, what it keeps, and what to type next.

use crate::config::{Config, Durability, Engine};
use crate::server::Up;
use std::fmt::Write as _;
use std::io::Write as _;

/// Prints the greeting to standard output. A closed standard output is no reason not to serve.
pub fn announce(config: &Config, up: &Up) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(greeting(config, up).as_bytes()).and_then(|()| out.flush());
}

fn greeting(config: &Config, up: &Up) -> String {
    let mut text = format!("chronik {} is ready\n\n", env!("CARGO_PKG_VERSION"));
    let mut rows: Vec<(String, String)> = Vec::new();
    let mut line = |name: &str, value: String| rows.push((name.to_owned(), value));
    let several = up.listeners.len() > 1;
    for (listener, bound, advertised) in &up.listeners {
        let name = if several { format!("kafka {}", listener.name) } else { "kafka".to_owned() };
        let shown = if advertised.to_string() == bound.to_string() {
            bound.to_string()
        } else {
            format!("{bound}, advertised as {advertised}")
        };
        line(&name, shown);
    }
    match &config.storage.engine {
        Engine::Segment | Engine::Plugin | Engine::Named(_) => {
            let path = &config.node.data_dir;
            let absolute = std::path::absolute(path).unwrap_or_else(|_| path.clone());
            line("data", absolute.display().to_string());
        }
        Engine::Memory => line("data", "in memory, gone when this process ends".to_owned()),
    }
    let (stored, plugins) = (up.engines.default_stored(), config.storage.configured_plugins());
    let kept = stored.survives.in_words();
    let library = plugins.iter().find(|plugin| plugin.engine == config.storage.engine);
    match library.and_then(|plugin| plugin.options.path.as_ref()) {
        Some(path) => line("engine", format!("{}, {} (what it keeps {kept})", stored.engine, path.display())),
        None => line("engine", format!("{} (what it keeps {kept})", stored.engine)),
    }
    if !plugins.is_empty() {
        let others = up.engines.names().split_off(1);
        line("engines", format!("topics may also choose {} (chronik.storage)", others.join(", ")));
    }
    let meaning = match (config.topics.durability, &config.storage.engine) {
        (Durability::Fsync, _) => "a record that is acknowledged with acks=all survives a power cut",
        (Durability::Replicated, Engine::Memory) => "acknowledged when appended",
        (Durability::Replicated, Engine::Plugin | Engine::Named(_)) => {
            "acknowledged when the plug-in says that it is written"
        }
        (Durability::Replicated, Engine::Segment) => {
            "acknowledged when written: survives this process, not a power cut"
        }
    };
    line("durability", format!("{} ({meaning})", config.topics.durability));
    match up.admin {
        Some(admin) => line("admin", format!("http://{admin}/  (healthz, readyz, metrics)")),
        None => line("admin", "off".to_owned()),
    }
    // A listener's name can be longer than what stands here otherwise.
    let width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0) + 2;
    for (name, value) in rows {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "  {name:<width$}{value}");
    }
    let bootstrap = up.listeners.first().map(|(_, _, advertised)| advertised.to_string());
    let bootstrap = match bootstrap.as_deref() {
        None | Some(super::DEFAULT_BOOTSTRAP) => String::new(),
        Some(address) => format!(" --bootstrap {address}"),
    };
    let _ = write!(
        text,
        "\nNext, in another terminal:\n\n  \
         chronik topic create hello --partitions 3{bootstrap}\n  \
         echo 'hello, world' | chronik produce hello{bootstrap}\n  \
         chronik consume hello --from-beginning{bootstrap}\n\n"
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::assemble::engines::Engines;
    use chronik_storage_segment::{SegmentEngine, SegmentOptions};
    use std::net::SocketAddr;
    use std::sync::Arc;

    fn started(config: &Config, port: u16) -> Up {
        let listener = config.listeners().remove(0);
        let bound: SocketAddr = ([127, 0, 0, 1], port).into();
        let advertised = crate::config::reach::advertised(&listener, bound);
        let place = tempfile::tempdir().expect("a directory");
        let engine = SegmentEngine::start(place.path().to_owned(), SegmentOptions::default()).expect("it starts");
        let engines = Arc::new(Engines::only(config.storage.engine.word(), Arc::new(engine)));
        Up { listeners: vec![(listener, bound, advertised)], admin: Some(([127, 0, 0, 1], 9644).into()), engines }
    }

    #[test]
    fn the_greeting_says_where_the_broker_is_what_it_keeps_and_what_to_type_next() {
        let config = Config::default();
        let text = greeting(&config, &started(&config, 9092));
        for said in [
            "127.0.0.1:9092",
            "chronik-data",
            "segment (what it keeps survives a power cut once synced)",
            "fsync",
            "http://127.0.0.1:9644/",
        ] {
            assert!(text.contains(said), "{said} in {text}");
        }
        assert!(text.contains("chronik consume hello --from-beginning\n"), "{text}");
    }

    #[test]
    fn each_of_several_listeners_is_named_apart_from_its_address() {
        let config = Config::default();
        let mut up = started(&config, 9092);
        let (mut other, bound, advertised) = up.listeners[0].clone();
        other.name = "for-those-outside".to_owned();
        up.listeners.push((other, bound, advertised));
        let text = greeting(&config, &up);
        let line = text.lines().find(|line| line.contains("for-those-outside")).expect("it is named");
        assert_eq!(line.split_whitespace().last(), Some("127.0.0.1:9092"), "{text}");
    }

    #[test]
    fn the_commands_name_the_address_where_it_is_not_the_usual_one() {
        let config = Config::default();
        let text = greeting(&config, &started(&config, 4711));
        assert!(text.contains("chronik topic create hello --partitions 3 --bootstrap 127.0.0.1:4711"), "{text}");
    }
}
