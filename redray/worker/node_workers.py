"""Worker processes as their template reports them: forked, exited; and what they print."""

from __future__ import annotations

from redray.gcs.schema import LIMITS
from redray.worker import events
from redray.worker.exit_reason import describe_exit
from redray.worker.node_processes import NodeProcesses
from redray.worker.output import LineReader
from redray.worker.process_link import ProcessLink
from redray.worker.template import Exited, Forked, ForkFailed, TemplateDied


class NodeWorkers(NodeProcesses):
    def _template_reports(self) -> None:
        for report in self._template.receive():
            if isinstance(report, Forked):
                self._worker_forked(report)
            elif isinstance(report, Exited):
                self._worker_exited(report)
            elif isinstance(report, ForkFailed):
                self._handle(events.WorkerGone(report.worker, 0, report.reason))
            elif isinstance(report, TemplateDied):
                self._stop("its template process has died")

    def _worker_forked(self, report: Forked) -> None:
        link = ProcessLink(report.channel, "worker")
        link.worker, link.pid = report.worker, report.pid
        self._attach(link)
        readers = (LineReader(report.stdout_fd), LineReader(report.stderr_fd))
        self._outputs[report.worker] = readers
        for reader, stream in zip(readers, ("stdout", "stderr"), strict=True):
            self._watch(reader.fileno(), lambda r=reader, s=stream: self._read_output(link, r, s))  # type: ignore[misc]

    def _worker_exited(self, report: Exited) -> None:
        link = self._links.pop(report.worker, None)
        readers = self._outputs.pop(report.worker, None)
        if link is not None:
            for body in link.read_to_end():
                self._take(link, body)
            self._dirty.discard(link)
            self._unwatch(link.fileno())
            link.close()
        tail: list[str] = []
        for reader, stream in zip(readers or (), ("stdout", "stderr"), strict=False):
            if link is not None:
                self._publish(link, stream, reader.drain())
            tail = list(reader.tail) if stream == "stderr" else []
            self._unwatch(reader.fileno())
            reader.close()
        if link is not None:
            self._end_process(link, report.status != 0)
        self._handle(events.WorkerGone(report.worker, report.started, describe_exit(report.status, report.pid, tail)))

    # ---- output ------------------------------------------------------------------------------------------------------
    def _read_output(self, link: ProcessLink, reader: LineReader, stream: str) -> None:
        self._publish(link, stream, reader.read())
        if reader.at_end:
            self._unwatch(reader.fileno())

    def _publish(self, link: ProcessLink, stream: str, lines: list[str]) -> None:
        """Printed lines go to the drivers of the job, by way of a capped stream. A full Redis refuses them."""
        if lines and link.told_job and not self._jobs.has_ended(link.told_job):
            self._link.plain(
                lambda _: None, "XADD", self._keys.logs(link.told_job), "MAXLEN", "~", LIMITS["LOG_LINES"], "*",
                "name", link.name, "pid", link.pid, "host", self._config.node_ip_address,
                "stream", stream, "text", "\n".join(lines),
            )  # fmt: skip
