"""Detects changes of a network's structure after its optimiser was made."""

from .module import CONTAINERS, Module
from .parameters import Parameter


class Structure:
    """A snapshot of where a network's modules and parameters are stored.

    ``unchanged`` is cheap enough to be called in every step.
    """

    def __init__(self, network: Module) -> None:
        self.parameters = network.parameters()
        entries, containers, seen = [], [], set()
        for module in network.modules():
            todo = [vars(module)]
            while todo:
                container = todo.pop()
                containers.append((container, len(container)))
                for key, value in (container.items() if isinstance(container, dict)
                                   else enumerate(container)):
                    if isinstance(value, (Module, Parameter)):
                        entries.append((container, key, value))
                    elif isinstance(value, CONTAINERS) and id(value) not in seen:
                        seen.add(id(value))
                        todo.append(value)
        self.entries, self.containers = entries, containers

    def unchanged(self) -> bool:
        """Whether every module and parameter is still the same object in the same container."""
        try:
            for container, size in self.containers:
                if len(container) != size:
                    return False
            for container, key, value in self.entries:
                if container[key] is not value:
                    return False
        except (KeyError, IndexError):
            return False
        return True
