"""The base class of the parts of a manifest."""

from typing import Any, ClassVar

from pydantic import SerializerFunctionWrapHandler, model_serializer

from dmoe.config.strict import Strict


class Part(Strict):
    """A part of the manifest."""

    added: ClassVar[tuple[str, ...]] = ()
    """Fields that were added later. They are written only if they differ from the default, so that manifests without them stay the same."""

    @model_serializer(mode="wrap")
    def _without_the_unsaid(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        dumped: dict[str, Any] = handler(self)
        fields = type(self).model_fields
        return {name: value for name, value in dumped.items() if name not in self.added or getattr(self, name) != fields[name].default}
