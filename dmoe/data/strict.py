"""The base of what a manifest holds."""

from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, SerializerFunctionWrapHandler, model_serializer


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)
    added: ClassVar[tuple[str, ...]] = ()
    """Fields that came after version 1, written only where they say something: other data sets' files stay as they were."""

    @model_serializer(mode="wrap")
    def _without_the_unsaid(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        dumped: dict[str, Any] = handler(self)
        fields = type(self).model_fields
        return {name: value for name, value in dumped.items() if name not in self.added or getattr(self, name) != fields[name].default}
