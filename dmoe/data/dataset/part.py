"""The base of every part of a manifest."""

from typing import Any, ClassVar

from pydantic import SerializerFunctionWrapHandler, model_serializer

from dmoe.strict import Strict


class Part(Strict):
    """A part of the manifest."""

    added: ClassVar[tuple[str, ...]] = ()
    """Fields that came after version 1, written only where they say something: other data sets' files stay as they were."""

    @model_serializer(mode="wrap")
    def _without_the_unsaid(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        dumped: dict[str, Any] = handler(self)
        fields = type(self).model_fields
        return {name: value for name, value in dumped.items() if name not in self.added or getattr(self, name) != fields[name].default}
