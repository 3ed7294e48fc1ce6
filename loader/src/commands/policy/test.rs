//! `policy test`: a policy against its table of expectations.

use super::{super::CommandError, AskError, FAILED, load, print, print_json};
use crate::{
    cli::TestArgs,
    render::explain::{self, Tested},
    resolvers,
};

pub(super) fn test(args: &TestArgs) -> Result<u8, CommandError> {
    let file = load(&args.file)?;
    let other = args.expect.as_deref().map(load).transpose()?;
    let tests = other.as_ref().unwrap_or(&file);
    let cases = tests.policy.tests();
    if cases.is_empty() {
        return Err(AskError::NoTests(tests.name.clone()).into());
    }
    let trusted = resolvers::known(file.policy.resolvers());
    let mut failed = 0;
    for case in cases {
        let told = case.explain(&file.policy, &trusted);
        let passed = case.passes(&told);
        failed += usize::from(!passed);
        let tested = Tested {
            case,
            told: &told,
            tests: &tests.name,
            policy: &file.name,
        };
        if args.json {
            print_json(&tested.json())?;
        } else if !passed {
            print(&tested.difference())?;
        }
    }
    if !args.json {
        print(&explain::summary(cases.len() - failed, failed))?;
    }
    Ok(if failed == 0 { 0 } else { FAILED })
}
