"""Compiles the tiles of the matrix product (``gemm_tile.py``), once for a processor."""

import contextlib
import hashlib
import os
import pathlib
import platform
import tempfile

from . import gemm_tile

engines = []                            # they own the machine code, and are never released


def compile_object(unit, triple, cpu, features):
    """The tiles for a vector unit as machine code for a processor: the bytes of an object file.

    At LLVM's speed level 1: level 2 moves loads so far ahead that registers have to be spilled.
    """
    from llvmlite import binding
    binding.initialize_all_targets()
    binding.initialize_all_asmprinters()
    machine = binding.Target.from_triple(triple).create_target_machine(
        cpu=cpu, features=features, opt=2, reloc="pic", codemodel="small", jit=False)
    module = binding.parse_assembly(gemm_tile.module_text(unit, triple))
    module.verify()
    options = binding.create_pipeline_tuning_options(speed_level=1)
    options.loop_vectorization = options.slp_vectorization = options.loop_unrolling = False
    passes = binding.create_pass_builder(machine, options)
    passes.getModulePassManager().run(module, passes)
    return machine.emit_object(module)


def addresses(cpu, features, folder=None, key=""):
    """Symbol → address of the function, compiled for a processor of LLVM's name and features.

    ``folder``: where the machine code is cached, or None; ``key`` names the version of the sources.
    """
    from llvmlite import binding
    binding.initialize_native_target()
    binding.initialize_native_asmprinter()
    triple, path = binding.get_process_triple(), None
    if os.name == "nt":                                # the form of code that LLVM links there
        triple += "-elf"
    if folder is not None:
        version = repr((key, triple, cpu, features, binding.llvm_version_info))
        name = hashlib.sha256(version.encode()).hexdigest()[:16]
        path = pathlib.Path(folder) / f"gemm-tile-{name}.o"
    code = read_checked(path)
    if code is None:
        unit = gemm_tile.unit_of(platform.machine(), features)
        code = compile_object(unit, triple, cpu, features)
        write_checked(path, code)
    machine = binding.Target.from_triple(triple).create_target_machine(cpu=cpu, features=features)
    engine = binding.create_mcjit_compiler(binding.parse_assembly(""), machine)
    engine.add_object_file(binding.object_file.ObjectFileRef.from_data(code))
    engine.finalize_object()
    engines.append(engine)
    return {name: engine.get_function_address(name) for name in gemm_tile.SYMBOLS.values()}


def read_checked(path):
    """The bytes that ``write_checked`` wrote; None if there are none, or others."""
    try:
        content = path.read_bytes()
    except (OSError, AttributeError):
        return None
    digest, code = content[:32], content[32:]
    return code if hashlib.sha256(code).digest() == digest else None


def write_checked(path, code):
    """Writes a file in one step, with a checksum at its head; a file that cannot be written is no
    error, since the code is compiled again then."""
    if path is None:
        return
    with contextlib.suppress(OSError):
        descriptor, temporary = tempfile.mkstemp(dir=path.parent)
        try:
            with open(descriptor, "wb") as file:
                file.write(hashlib.sha256(code).digest() + code)
            os.replace(temporary, path)
        except OSError:                                # on a full disk, free what was written
            os.unlink(temporary)
