"""The endpoint behind the page that compares two of the served runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

from fastapi import APIRouter, Query

from mmsent.evaluation.compare import Case, compare_runs
from mmsent.serve import page_schemas
from mmsent.serve.endpoints import Access
from mmsent.serve.openapi import documented
from mmsent.serve.queueing import Work, in_thread
from mmsent.serve.review import Review


def compare_routes(work: Work, review: Callable[[], Review], access: Access) -> APIRouter:
    """Comparing runs. review: opens the reviewed posts, whose texts and images are shown."""
    router = APIRouter(dependencies=access.dependencies)

    @router.get(
        "/compare/runs",
        operation_id="compare_runs",
        summary="Two of the served runs side by side",
        responses=documented(*access.refusals, 422),
    )
    async def compared(
        a: Annotated[str, Query(max_length=255, description="a run's name")],
        b: Annotated[str, Query(max_length=255, description="another run's name")],
    ) -> page_schemas.Compared:
        """The settings that differ, the gap of the scores with its interval, McNemar's p, and the posts that only one
        of the runs has right."""

        def found() -> page_schemas.Compared:
            result = compare_runs(work.service.run_named(a), work.service.run_named(b))
            known = review().about({case.id for case in [*result.only_a, *result.only_b]})
            sides = {"only_a": _with(result.only_a, known), "only_b": _with(result.only_b, known)}
            return page_schemas.Compared.model_validate(result.to_json() | sides)

        return await in_thread(work.reviewer, found)

    return router


def _with(cases: list[Case], known: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    nothing = {"row": None, "text": "", "picture": False}
    return [{**vars(case), **known.get(case.id, nothing)} for case in cases]
