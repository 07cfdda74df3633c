//! `tests/golden/explain/NAME.in.yaml` is a configuration that begins with comments `# $ ringway explain ...`, one per
//! question; `NAME.out.txt` are the answers.

use clap::Parser as _;
use ringway::cli::{Cli, Command};
use ringway::explain::{explain, render};

use super::{compare, files, golden, load_text, said};

/// Words of a command line; single quotes hold some together.
fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut quoted = false;
    let mut word = String::new();
    for c in line.chars() {
        match c {
            '\'' => quoted = !quoted,
            ' ' if !quoted => words.extend(Some(std::mem::take(&mut word)).filter(|word| !word.is_empty())),
            _ => word.push(c),
        }
    }
    words.extend(Some(word).filter(|word| !word.is_empty()));
    words
}

#[test]
fn explanations_are_as_written() {
    let mut good = true;
    for path in files(&golden("explain"), ".in.yaml") {
        let text = std::fs::read_to_string(&path).unwrap();
        let loaded = load_text(path.file_name().unwrap().to_str().unwrap(), &text, false);
        let model = &loaded.accepted.as_ref().unwrap_or_else(|| panic!("{}", said(&loaded))).model;
        let mut out = String::new();
        for line in text.lines().map_while(|line| line.strip_prefix("# $ ")) {
            let Command::Explain(args) = Cli::try_parse_from(words(line)).unwrap().command else {
                panic!("not a question: {line}");
            };
            let output = args.output;
            let answer = match explain(model, &args.question(), None) {
                Ok(found) if output == ringway::cli::Output::Json => format!("{found:#}\n"),
                Ok(found) => render(&found),
                Err(error) => format!("error: {error}\n"),
            };
            out += &format!("$ {line}\n{answer}\n");
        }
        good &= compare(
            &path.with_file_name(path.file_name().unwrap().to_str().unwrap().replace(".in.yaml", ".out.txt")),
            &out,
        );
    }
    assert!(good, "run with RINGWAY_BLESS=1 and read the change");
}
