"""Whether docs/FAMILIES.md names each member of transformers' config classes."""
import dataclasses
import re

import transformers


def check(path, classes, shared_title, section_of):
    """Each member stands as `member` in section_of(sections, class), or in the section of that title. sections is {title: body}."""
    sections = dict(re.findall(r"^## (.*?)\n(.*?)(?=^## |\Z)", path.read_text(), re.S | re.M))
    missing = 0
    for config_class in classes:
        known = set(re.findall(r"`([a-z_0-9]+)`", sections[shared_title] + section_of(sections, config_class)))
        members = set(getattr(transformers, config_class)().to_dict()) | {
            field.name for field in dataclasses.fields(getattr(transformers, config_class))}
        for member in sorted(members):
            if not member.startswith("_") and member not in known:
                print(f"{config_class}: {member} is not listed")
                missing += 1
    print(f"{missing} members are not listed")
    return missing == 0
