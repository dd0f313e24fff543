//! What the scheduler calls each minute.

use super::{Identity, control_plane};

/// The function and its role, the scheduler's role, and the queue of what fails.
#[track_caller]
fn runs_each_minute(name: &str, role: &str, scheduler: &str, dead: &str) {
    let stack = control_plane();
    let function = stack.resource(name);
    let schedule = &function["Events"]["EachMinute"];
    assert_eq!(
        (&schedule["Type"], &schedule["Properties"]["ScheduleExpression"]),
        (&"ScheduleV2".into(), &"rate(1 minute)".into())
    );
    assert_eq!(stack.text(&schedule["Properties"]["RoleArn"]), format!("arn:{scheduler}"));
    let retries = [&schedule["Properties"]["RetryPolicy"], &function["EventInvokeConfig"]];
    for policy in retries {
        assert_eq!(policy["MaximumRetryAttempts"], 0, "the next minute's call is the retry");
    }
    let queues = [
        &schedule["Properties"]["DeadLetterConfig"]["Arn"],
        &function["EventInvokeConfig"]["DestinationConfig"]["OnFailure"]["Destination"],
    ];
    let dead = format!("arn:{dead}");
    for (queue, sender) in queues.into_iter().zip([scheduler, role]) {
        assert_eq!(stack.text(queue), dead);
        assert!(Identity::new(&stack, sender).may("sqs:SendMessage", &dead, &[]), "{sender}");
    }
    let identity = Identity::new(&stack, scheduler);
    assert!(identity.may("lambda:InvokeFunction", &format!("arn:{name}"), &[]));
    assert!(!identity.may("lambda:InvokeFunction", "arn:Admin", &[]));
    let trust = stack.resolve(&stack.resource(scheduler)["AssumeRolePolicyDocument"]["Statement"][0]);
    assert_eq!(trust["Principal"]["Service"], "scheduler.amazonaws.com");
    assert_eq!(trust["Condition"]["StringEquals"]["aws:SourceAccount"], "111122223333");
}

#[test]
fn the_sweep_runs_each_minute_and_what_fails_is_told() {
    runs_each_minute("Approvals", "ApprovalsRole", "SweepScheduleRole", "DeadSweepsQueue");
}

#[test]
fn the_sync_runs_each_minute_and_what_fails_is_told() {
    runs_each_minute("Sync", "SyncRole", "SyncScheduleRole", "DeadSyncsQueue");
    let stack = control_plane();
    let time_out = stack.resource("Sync")["Timeout"].as_u64().unwrap();
    assert!(tidegate_sync::BUDGET.as_secs() + 15 < time_out, "a request to a source may take 15 s");
}
