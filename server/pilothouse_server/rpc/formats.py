"""The check of each `Format` of `pilothouse.options.v1`.

A check takes the text and returns the rule that it breaks, in words, or None. The words never repeat the
text.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from pilothouse.options.v1 import options_pb2 as options
from pilothouse_server.values import names
from pilothouse_server.values.image_reference import image_problem
from pilothouse_server.values.labels import label_selector_problem
from pilothouse_server.values.quantity import quantity_problem

TextCheck = Callable[[str], str | None]

# For strings, and for keys of maps.
TEXT_FORMATS: Mapping[int, TextCheck] = {
    options.FORMAT_DNS_LABEL: names.dns_label_problem,
    options.FORMAT_DNS_SUBDOMAIN: names.dns_subdomain_problem,
    options.FORMAT_QUANTITY: quantity_problem,
    options.FORMAT_IMAGE: image_problem,
    options.FORMAT_UUID: names.uuid_problem,
    options.FORMAT_LABEL_SELECTOR: label_selector_problem,
    options.FORMAT_ENV_NAME: names.environment_name_problem,
    options.FORMAT_ABSOLUTE_PATH: names.absolute_path_problem,
    options.FORMAT_RELATIVE_PATH: names.relative_path_problem,
    options.FORMAT_USERNAME: names.username_problem,
    options.FORMAT_EMAIL: names.email_problem,
    options.FORMAT_PERMISSION: names.permission_problem,
    options.FORMAT_TEXT: names.text_problem,
    options.FORMAT_PORT_NAME: names.port_name_problem,
    options.FORMAT_CONFIG_KEY: names.config_key_problem,
    options.FORMAT_PRINCIPAL: names.principal_problem,
    options.FORMAT_PATH_SEGMENT: names.path_segment_problem,
    options.FORMAT_API_VERSION: names.api_version_problem,
    options.FORMAT_KIND: names.kind_problem,
}

# For maps only: the check of the keys, and that of the values if there is one.
MAP_FORMATS: Mapping[int, tuple[TextCheck, TextCheck | None]] = {
    options.FORMAT_LABELS: (names.label_key_problem, names.label_value_problem),
    options.FORMAT_ANNOTATIONS: (names.annotation_key_problem, None),
}


def format_word(number: int) -> str:
    """Returns the word of a format in a violation's rule: `format_dns_label`."""
    return options.Format.Name(options.Format.ValueType(number)).lower()
