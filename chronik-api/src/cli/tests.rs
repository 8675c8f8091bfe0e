//! What the command line accepts.

use super::*;
use clap::CommandFactory;

fn parse(line: &str) -> Result<Cli, clap::Error> {
    Cli::try_parse_from(line.split_whitespace())
}

#[test]
fn the_command_line_is_sound() {
    Cli::command().debug_assert();
}

#[test]
fn without_a_command_it_serves_with_the_same_options() {
    for line in ["chronik --set node.id=2 --set a=b", "chronik serve --set node.id=2 --set a=b"] {
        let cli = parse(line).expect(line);
        let args = match cli.command {
            None => cli.serve,
            Some(Command::Serve(args)) => args,
            Some(other) => panic!("{line} is {other:?}"),
        };
        assert_eq!(args.config.set, ["node.id=2", "a=b"]);
    }
}

#[test]
fn bench_hands_everything_on() {
    let Some(Command::Bench(_)) = parse("chronik bench produce --quick --bootstrap x:1").expect("right").command else {
        panic!("it is bench");
    };
    assert!(parse("chronik bench --help").is_ok(), "its own help is chronik-bench's");
}

#[test]
fn plugins_are_begun_and_checked_by_name() {
    assert!(parse("chronik plugin new mine --lang rust --sdk plugins/sdk").is_ok());
    assert!(parse("chronik plugin check mine.so --rule k01 --rule d --no-bench --json").is_ok());
    assert!(parse("chronik plugin new mine --lang cobol").is_err());
    assert!(parse("chronik plugin check").is_err());
}

#[test]
fn clients_take_what_they_need_and_refuse_what_contradicts_itself() {
    for right in [
        "chronik topic create orders --partitions 3 --config retention.ms=1 --config cleanup.policy=compact,delete",
        "chronik topic list --internal --json",
        "chronik topic describe orders -b broker:9092",
        "chronik topic delete a b --if-exists",
        "chronik group list",
        "chronik group describe billing --json",
        "chronik produce orders --key-separator : --compression zstd --acks 1 --file x",
        "chronik consume orders --from-beginning -n 5",
        "chronik consume orders --offset -10 --partition 2 -e",
        "chronik consume orders --timestamp 10m --group g --json",
    ] {
        assert!(parse(right).is_ok(), "{right}: {:?}", parse(right).err());
    }
    for wrong in [
        "chronik topic create",
        "chronik topic create x --config retention.ms",
        "chronik topic delete",
        "chronik consume orders --offset 1 --from-beginning",
        "chronik consume orders --group g --partition 1",
        "chronik consume orders --json --format %v",
        "chronik produce orders --acks 2",
        "chronik produce orders --timeout 0",
        "chronik --config x topic list",
    ] {
        assert!(parse(wrong).is_err(), "{wrong}");
    }
}
