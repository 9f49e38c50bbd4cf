"""Writes LLVM code: functions of addresses and vectors, with loops whose values stay in registers.

``gemm_tile.py`` writes the innermost part of the matrix product with it.
"""


class VectorCode:
    """Functions of one precision in an LLVM module, for vectors of ``lanes`` numbers.

    All parameters of the functions are addresses or 64-bit integers.
    """

    def __init__(self, module, dtype, size, lanes):
        from llvmlite import ir
        self.ir, self.module, self.dtype, self.size, self.lanes = ir, module, dtype, size, lanes
        self.number = ir.FloatType() if size == 4 else ir.DoubleType()
        self.index = ir.IntType(64)
        self.vector = ir.VectorType(self.number, lanes)
        name = f"llvm.fma.v{lanes}f{8 * size}"
        self.fma = ir.Function(module, ir.FunctionType(self.vector, [self.vector] * 3), name)

    def function(self, name, parameters, internal=False):
        """(function, builder at its entry, its parameters by name)."""
        ir = self.ir
        kind = ir.FunctionType(ir.VoidType(), [self.index] * len(parameters))
        function = ir.Function(self.module, kind, name)
        if internal:
            function.linkage = "internal"
        build = ir.IRBuilder(function.append_basic_block("entry"))
        return function, build, dict(zip(parameters, function.args, strict=True))

    def at(self, build, address, *offsets):
        """A pointer to the vector at ``address`` + the sum of ``offsets``, counted in numbers."""
        for offset in offsets:
            offset = self.index(offset) if isinstance(offset, int) else offset
            address = build.add(address, build.mul(offset, self.index(self.size)))
        return address

    def load(self, build, address, kind=None):
        kind = kind or self.vector
        loaded = build.load(build.inttoptr(address, kind.as_pointer()))
        loaded.align = self.size
        return loaded

    def store(self, build, value, address):
        pointer = build.inttoptr(address, value.type.as_pointer())
        build.store(value, pointer).align = self.size

    def in_every_lane(self, build, x):
        ir = self.ir
        none = ir.Constant(self.vector, ir.Undefined)
        first = build.insert_element(none, x, ir.IntType(32)(0))
        return build.shuffle_vector(first, none, self.mask([0] * self.lanes))

    def mask(self, lanes):
        ir = self.ir
        return ir.Constant(ir.VectorType(ir.IntType(32), len(lanes)), lanes)

    def loop(self, build, count, body, carried=()):
        """for p in range(count): carried = body(p, carried); returns what the last one gave.

        ``count`` may be 0. The builder is left behind the loop.
        """
        before, function = build.block, build.function
        inside, after = (function.append_basic_block(name) for name in ("loop", "after"))
        some = build.icmp_signed(">", count, self.index(0))
        build.cbranch(some, inside, after)
        build.position_at_end(inside)
        p = build.phi(self.index)
        p.add_incoming(self.index(0), before)
        current = [build.phi(value.type) for value in carried]
        for phi, value in zip(current, carried, strict=True):
            phi.add_incoming(value, before)
        following = body(p, current) or []
        more, end = build.add(p, self.index(1)), build.block
        p.add_incoming(more, end)
        for phi, value in zip(current, following, strict=True):
            phi.add_incoming(value, end)
        build.cbranch(build.icmp_signed("<", more, count), inside, after)
        build.position_at_end(after)
        results = [build.phi(value.type) for value in carried]
        for phi, first, last in zip(results, carried, following, strict=True):
            phi.add_incoming(first, before)
            phi.add_incoming(last, end)
        return results

    def transpose(self, build, rows):
        """The transpose of a square of vectors: exchanges blocks of half, a quarter, … the size."""
        rows, n = list(rows), self.lanes
        d = n // 2
        while d:
            for i in range(n):
                if not i & d:
                    x, y = rows[i], rows[i | d]
                    rows[i] = build.shuffle_vector(x, y, self.mask(
                        [lane if not lane & d else n + (lane ^ d) for lane in range(n)]))
                    rows[i | d] = build.shuffle_vector(x, y, self.mask(
                        [lane | d if not lane & d else n + lane for lane in range(n)]))
            d //= 2
        return rows

    def prefetch(self, build, address):
        """Begin to load the cache line at ``address``, which need not be a valid one."""
        ir = self.ir
        number, byte = ir.IntType(32), ir.IntType(8).as_pointer()
        function = self.module.globals.get("llvm.prefetch.p0i8") or ir.Function(
            self.module, ir.FunctionType(ir.VoidType(), [byte] + [number] * 3),
            "llvm.prefetch.p0i8")
        reading, every_cache, data = number(0), number(3), number(1)
        build.call(function, [build.inttoptr(address, byte), reading, every_cache, data])
