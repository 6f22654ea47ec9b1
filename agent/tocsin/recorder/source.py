"""A source straight to the recorder, without a model."""

from tocsin.recorder.recorder import Recorder
from tocsin.records import SampleBlock
from tocsin.sources import SourceSettings, make_source
from tocsin.sources.reader import SourceReader


class RecordedSource(SourceReader):
    """Records all that a source gives.

    Args:
        stream: its name.
        settings: of the source.
        recorder: started.
    """

    def __init__(self, stream: str, settings: SourceSettings, recorder: Recorder) -> None:
        super().__init__(stream, make_source(settings, ()), settings.startup)
        self.may_be_absent = settings.startup == "ignore"
        self._recorder = recorder

    def _take(self, block: SampleBlock) -> None:
        self._recorder.put(self.name, self.source.channels, block)
