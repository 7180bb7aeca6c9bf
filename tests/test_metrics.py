"""What can become a label is bounded, whatever is sent."""

from reactorcide.metrics import Metrics


def test_unknown_methods_share_a_label() -> None:
    metrics = Metrics()
    metrics.observe_request("GET", "none", 404, 0.1)
    size_bytes = len(metrics.render())
    for number in range(2000):
        metrics.observe_request(f"BREW{number}", "none", 405, 0.1)
    text = metrics.render()
    assert len(text) < size_bytes + 4096
    assert b'reactorcide_http_requests_total{method="(other)",route="none",status="405"} 2000.0' in text
    assert b"BREW" not in text


def test_labels_of_unused_queues_are_removed() -> None:
    metrics = Metrics()
    for number in range(500):
        metrics.observe_job_wait(f"queue-{number}", 0.1)
        metrics.observe_job_end("default", "completed", 1.0)
        metrics.observe_job_end(f"queue-{number}", "failed" if number % 2 else "cancelled", None)
    text = metrics.render().decode()
    assert 'reactorcide_jobs_ended_total{queue="default",status="completed"} 500.0' in text
    assert 'queue="queue-499"' in text
    assert 'queue="queue-1"' not in text
    assert len(set(text.split('queue="')[1:])) < 5000
    assert len(text) < 200_000


def test_queues_above_a_limit_share_a_label() -> None:
    metrics = Metrics()
    counts = [(f"queue-{number}", "queued", 1) for number in range(2000)] + [("default", "queued", 7)]
    metrics.add_job_counts(lambda: counts)
    text = metrics.render().decode()
    assert 'reactorcide_jobs{queue="default",status="queued"} 7.0' in text
    assert 'reactorcide_jobs{queue="(other)",status="queued"} 1951.0' in text
    assert 'reactorcide_queue_depth{queue="(other)"} 1951.0' in text
    assert len(text) < 20_000
