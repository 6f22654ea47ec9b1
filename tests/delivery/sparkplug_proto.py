"""The classes of Sparkplug's payload, as protobuf makes them of the specification's own file.

Field by field from `sparkplug_b.proto` (proto2, package org.eclipse.tahu.protobuf) of
https://github.com/eclipse/tahu/blob/master/sparkplug_b/sparkplug_b.proto, which is under EPL-2.0 and therefore not kept
here. DataSet, Template, MetaData and the extensions are left out: nothing here uses them.
"""

from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

_KINDS = descriptor_pb2.FieldDescriptorProto
_TYPES = {
    "string": _KINDS.TYPE_STRING, "uint32": _KINDS.TYPE_UINT32, "uint64": _KINDS.TYPE_UINT64,
    "float": _KINDS.TYPE_FLOAT, "double": _KINDS.TYPE_DOUBLE, "bool": _KINDS.TYPE_BOOL, "bytes": _KINDS.TYPE_BYTES,
}  # fmt: skip
_PACKAGE = "org.eclipse.tahu.protobuf"

MESSAGES = {  # name → fields as they stand in the file; `value` = a member of `oneof value`
    "PropertyValue": """
        optional uint32 type = 1
        optional bool is_null = 2
        value uint32 int_value = 3
        value uint64 long_value = 4
        value float float_value = 5
        value double double_value = 6
        value bool boolean_value = 7
        value string string_value = 8
    """,
    "PropertySet": """
        repeated string keys = 1
        repeated PropertyValue values = 2
    """,
    "Metric": """
        optional string name = 1
        optional uint64 alias = 2
        optional uint64 timestamp = 3
        optional uint32 datatype = 4
        optional bool is_historical = 5
        optional bool is_transient = 6
        optional bool is_null = 7
        optional PropertySet properties = 9
        value uint32 int_value = 10
        value uint64 long_value = 11
        value float float_value = 12
        value double double_value = 13
        value bool boolean_value = 14
        value string string_value = 15
        value bytes bytes_value = 16
    """,
    "": """
        optional uint64 timestamp = 1
        repeated Metric metrics = 2
        optional uint64 seq = 3
        optional string uuid = 4
        optional bytes body = 5
    """,
}


def _fill(message: descriptor_pb2.DescriptorProto, fields: str) -> None:
    for line in fields.strip().splitlines():
        label, kind, name, _, number = line.split()
        field = message.field.add(name=name, number=int(number))
        field.label = _KINDS.LABEL_REPEATED if label == "repeated" else _KINDS.LABEL_OPTIONAL
        if label == "value":
            if not message.oneof_decl:
                message.oneof_decl.add(name="value")
            field.oneof_index = 0
        if kind in _TYPES:
            field.type = _TYPES[kind]
        else:
            field.type, field.type_name = _KINDS.TYPE_MESSAGE, f".{_PACKAGE}.Payload.{kind}"


def _payload_class() -> Any:
    file = descriptor_pb2.FileDescriptorProto(name="sparkplug_b.proto", package=_PACKAGE, syntax="proto2")
    payload = file.message_type.add(name="Payload")
    for name, fields in MESSAGES.items():
        _fill(payload.nested_type.add(name=name) if name else payload, fields)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{_PACKAGE}.Payload"))


Payload: Any = _payload_class()
