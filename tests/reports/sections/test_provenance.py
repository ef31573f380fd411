from __future__ import annotations

from reports.report import render
from reports.snapshot import AttemptSnapshot, HardwareSnapshot, PointSnapshot, SweepSnapshot
from tests.reports.reading import rows_below


def provenance(*hardware: HardwareSnapshot | None, **more: object) -> dict[str, str]:
    points = tuple(
        PointSnapshot(f"p{n}", f"job-{n}", attempts=(AttemptSnapshot(1),), hardware=one)
        for n, one in enumerate(hardware)
    )
    report = render(SweepSnapshot("s", points=points, **more), only={"provenance"})  # type: ignore[arg-type]
    return {row["Field"]: row["Value"] for row in rows_below(report, "Provenance")}


def test_what_all_jobs_ran_on_is_said_once() -> None:
    node = HardwareSnapshot("NVIDIA H200", 8, "570.86", "verl@sha256:ab", "c" * 64)
    assert provenance(node, node, backend="runai", environment={"torch": "2.13"}) == {
        "torch": "`2.13`",
        "Backend": "`runai`",
        "GPU": "`8 × NVIDIA H200`",
        "Driver": "`570.86`",
        "Image": "`verl@sha256:ab`",
        "Packages of the jobs (sha256)": f"`{'c' * 64}`",
    }


def test_where_jobs_differ_each_value_names_its_jobs() -> None:
    found = provenance(HardwareSnapshot(driver="570"), HardwareSnapshot(driver="550"), HardwareSnapshot(driver="570"))
    assert found == {"Driver": "`570` (`job-0`, `job-2`); `550` (`job-1`)"}


def test_a_job_that_said_nothing_is_not_counted_in() -> None:
    assert provenance(HardwareSnapshot(driver="570"), None) == {"Driver": "`570` (`job-0`)"}


def test_nothing_known_is_no_section() -> None:
    assert provenance(None) == {}
