"""The output of a dry run: the difference of every step that passed the trial, and its effect."""

from __future__ import annotations

from collections.abc import Callable

from pilothouse.config.v1 import config_pb2
from pilothouse_client.apply import configs, objects, plan, services, volumes
from pilothouse_client.apply.execute import ApplyOutcome, line
from pilothouse_client.apply.outcome import Say
from pilothouse_client.apply.plan import Action
from pilothouse_client.apply.trial import ApplySteps, Trial

_SUFFIX = " (dry run)"


def preview(steps: ApplySteps, trial: Trial, outcome: ApplyOutcome, say: Say, complain: Say) -> None:
    """Shows the steps; their effects are added to the outcome, those of unjudged steps as failed."""

    def show(subject: str, action: Action, told: str, difference: Callable[[], str]) -> None:
        if subject in trial.refused:
            return
        if action is not Action.NOTHING:
            say(difference().rstrip("\n"))
        if subject in trial.unjudged:
            outcome.failed.append(subject)
            complain(f"{subject} could not be tried: {trial.unjudged[subject]}")
            return
        outcome.done[action] += 1
        say(told + _SUFFIX)

    for config in steps.configs:
        after = trial.answers.get(config.subject, config.before or config.message)
        assert isinstance(after, config_pb2.ConfigMap | config_pb2.Secret)
        action = configs.action_of(config, after)
        show(
            config.subject,
            action,
            f"{config.subject} {action.value}",
            lambda step=config, after=after: configs.difference(step, after),  # type: ignore[misc]
        )
    for volume in steps.volumes:
        show(
            volume.subject,
            volume.action,
            f"{volume.subject} {volume.action.value}",
            lambda step=volume: volumes.difference(step),  # type: ignore[misc]
        )
    for service in steps.services:
        show(
            service.subject,
            service.action,
            f"{service.subject} {service.action.value}",
            lambda step=service: services.difference(step),  # type: ignore[misc]
        )
    for each in steps.objects:
        show(
            each.subject,
            each.action,
            f"{each.subject} {each.action.value}",
            lambda step=each: objects.difference(step),  # type: ignore[misc]
        )
    for container in steps.containers:
        show(
            container.subject,
            container.action,
            line(container),
            lambda step=container: plan.difference(step),  # type: ignore[misc]
        )
