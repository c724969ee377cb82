"""The shape of JSON, for signatures that carry whatever a client sent."""

from typing import TypeAlias

from typing_extensions import TypeAliasType

# A named type, because Pydantic cannot follow an alias that contains itself.
JsonValue = TypeAliasType("JsonValue", "bool | int | float | str | list[JsonValue] | dict[str, JsonValue] | None")
JsonObject: TypeAlias = dict[str, JsonValue]
