from typing import Any

import pytest
from tuned_models import MODELS


@pytest.fixture(params=MODELS)
def any_model(request: pytest.FixtureRequest) -> Any:
    return MODELS[request.param]()
