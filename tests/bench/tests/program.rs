//! The program itself: that it says what it lacks.

use std::process::Command;

#[test]
fn without_a_broker_it_says_what_to_do() {
    let output = Command::new(env!("CARGO_BIN_EXE_chronik-bench"))
        .args(["produce", "--quick", "--broker-binary", "/nowhere/chronik"])
        .output()
        .expect("it runs");
    assert!(!output.status.success());
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("/nowhere/chronik") && said.contains("--broker-binary"), "{said}");
}
