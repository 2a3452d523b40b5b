import pytest

from tests.report.sample import Sample, write_sample


@pytest.fixture(scope="session")
def sample(tmp_path_factory) -> Sample:
    return write_sample(tmp_path_factory.mktemp("sample"))
