"""Messages and methods, made from a FileDescriptorSet: that of this version of assay, or the one that a server answers.

The package has no generated *_pb2 modules. They would register themselves in the process-wide descriptor pool under
bare names (types_pb2, work_pb2) and bind the package to one range of versions of protobuf; a FileDescriptorSet in a
pool of its own does neither, and it is what reflection answers, so that known and unknown schemas take one path."""

from __future__ import annotations

import pathlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError, Message

from ._compile import compile_schemas

PACKAGE = "assay.v1"


@dataclass(frozen=True)
class Method:
    """One row of a service."""

    name: str  # "assay.v1.Coordinator/GetJob"
    request: type[Message]
    reply: type[Message]
    is_stream: bool


class Schemas:
    """All messages, enum values and methods of a FileDescriptorSet."""

    def __init__(self, descriptor_set: bytes):
        """ValueError: not a FileDescriptorSet, or one that contradicts itself."""
        self.descriptor_set = descriptor_set
        self._pool = descriptor_pool.DescriptorPool()
        self._factory = (
            None if hasattr(message_factory, "GetMessageClass") else message_factory.MessageFactory(self._pool)
        )
        self._services: dict[str, Any] = {}
        try:
            files = descriptor_pb2.FileDescriptorSet.FromString(descriptor_set).file
            for file in files:
                self._pool.AddSerializedFile(file.SerializeToString())
            for file in files:
                services = self._pool.FindFileByName(file.name).services_by_name
                self._services.update({service.full_name: service for service in services.values()})
            self._streams = {
                f"{file.package}.{service.name}/{method.name}": method.server_streaming
                for file in files
                for service in file.service
                for method in service.method
            }
        except (DecodeError, TypeError, KeyError, ValueError) as error:
            raise ValueError(f"the schemas cannot be read: {error}") from error

    def message(self, name: str) -> type[Message]:
        """The class of "assay.v1.Job"; KeyError when there is none."""
        return self._class_of(self._pool.FindMessageTypeByName(name))

    def enum(self, name: str) -> dict[str, int]:
        """The values of "assay.v1.JobState" by name; KeyError when there is none."""
        return {value.name: value.number for value in self._pool.FindEnumTypeByName(name).values}

    def method(self, name: str) -> Method:
        """KeyError when there is none of that name."""
        service, _, method = name.partition("/")
        descriptor = self._services[service].methods_by_name[method]
        return Method(
            name, self._class_of(descriptor.input_type), self._class_of(descriptor.output_type), self._streams[name]
        )

    def methods(self) -> Iterator[Method]:
        return (self.method(name) for name in self._streams)

    def _class_of(self, descriptor: Any) -> type[Message]:
        if self._factory:
            return self._factory.GetPrototype(descriptor)
        return message_factory.GetMessageClass(descriptor)


class _Names:
    """pb.Job and pb.JOB_STATE_FAILED for the messages and enum values of this version's package."""

    def __init__(self, schemas: Schemas):
        self._schemas = schemas
        self._values: dict[str, int] = {}
        for file in descriptor_pb2.FileDescriptorSet.FromString(schemas.descriptor_set).file:
            for enum in file.enum_type:
                self._values.update(schemas.enum(f"{file.package}.{enum.name}"))

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        try:
            found = self._values[name] if name in self._values else self._schemas.message(f"{PACKAGE}.{name}")
        except KeyError:
            raise AttributeError(f"{PACKAGE} has neither a message nor an enum value {name}") from None
        setattr(self, name, found)
        return found

    def name_of(self, enum: str, value: int) -> str:
        """ "COMPLETED" for a value of JobState: the name without what all of them begin with."""
        values = {number: text for text, number in self._schemas.enum(f"{PACKAGE}.{enum}").items()}
        prefix = "".join(f"_{char}" if char.isupper() else char.upper() for char in enum).lstrip("_") + "_"
        return values[value][len(prefix) :] if value in values else str(value)


def _known() -> Schemas:
    here = pathlib.Path(__file__).resolve()
    built = here.with_name("schemas.bin")
    if built.exists():
        return Schemas(built.read_bytes())
    checkout = here.parents[4] / "proto" if len(here.parents) > 4 else here.parent
    try:
        return Schemas(compile_schemas(checkout))
    except RuntimeError as error:
        raise ImportError(f"{built} is missing, and it cannot be made: {error}") from error


SCHEMAS = _known()
pb = _Names(SCHEMAS)
