"""Reads {name: rendered YAML} from standard input and checks it against the schemas of Kubernetes.

    validate.py VERSION ...

Writes {"documents": {name: [...]}, "problems": [...], "unknown": [...]}: the documents as JSON, what
is wrong with them, and the kinds that the schemas do not know.
"""

import functools
import json
import sys

import kubernetes_validate
import yaml
from kubernetes_validate import utils

utils.schema_contents = functools.lru_cache(maxsize=None)(utils.schema_contents)


class Loader(yaml.SafeLoader):
    """Refuses a key that a mapping has twice, as the API server does; YAML itself takes the last."""

    def construct_mapping(self, node, deep=False):
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.constructor.ConstructorError(None, None, f"{key} is there twice", node.start_mark)
        return super().construct_mapping(node, deep=deep)


def main():
    documents, problems, unknown = {}, [], set()
    for name, text in json.load(sys.stdin).items():
        documents[name] = [document for document in yaml.load_all(text, Loader) if document]
        for document in documents[name]:
            if "kind" not in document:
                continue  # a file of values
            what = f"{name}: {document['kind']} {document['metadata']['name']}"
            for version in sys.argv[1:]:
                try:
                    kubernetes_validate.validate(document, version, strict=True)
                except kubernetes_validate.ValidationError as error:
                    path = ".".join(map(str, error.path))
                    problems.append(f"{what}, Kubernetes {version}: {path}: {error.message}")
                except kubernetes_validate.SchemaNotFoundError:
                    unknown.add(document["kind"])
    json.dump({"documents": documents, "problems": problems, "unknown": sorted(unknown)}, sys.stdout)


main()
