"""The innermost part of a matrix product on the CPU: a tile of C kept in vector registers.

Compiled code that loops over single numbers reaches a small part of a core's speed. A tile holds
R rows × V vectors of C in registers and adds one column of A times one row of B to it per step:

    for p in range(k):                     # R V multiply-adds of whole vectors for
        b_0 … b_(V-1) = B[p, …]            # V loads
        for i in range(R):
            a = A[i, p] in every lane      # and R loads
            C[i, v] = fma(a, b_v, C[i, v])

With R V > R + V the arithmetic, not the loads, limits the speed. R and V are chosen so that C, one
row of B and one number of A fit into the registers of the vector unit (``UNITS``).

The tiles are built as LLVM code with llvmlite and compiled without Numba, which takes a tenth of
the time; Numba's kernels call them by name (``SYMBOLS``). Each number of C is one chain of fused
multiply-adds in the order of p, whatever R, V and the width of a vector, so that every processor
computes the same bits.
"""

from typing import NamedTuple

FLOAT32, FLOAT64 = "float32", "float64"
SIZES = {FLOAT32: 4, FLOAT64: 8}
PARAMETERS = {          # of the compiled functions, all of them addresses or 64-bit integers
    "tile": ("rows", "keep", "a", "a_row", "a_step", "b", "b_step", "packed", "k", "c", "c_row",
             "add"),
    "pack": ("b", "b_step", "b_column", "packed", "k", "columns"),
    "copy": ("tile", "c", "c_row", "c_column", "rows", "columns", "add"),
}
NUMBERS = ("rows", "columns")           # functions without parameters: the size of a tile
SYMBOLS = {(name, dtype): f"scratchgen_{name}_{dtype}"
           for name in (*PARAMETERS, *NUMBERS) for dtype in SIZES}


class Unit(NamedTuple):
    """A vector unit: its name, the bytes of a register, and the tile: rows, vectors per row."""

    name: str
    width: int
    rows: int
    vectors: int

    def columns(self, dtype):
        """The columns of a tile."""
        return self.vectors * self.width // SIZES[dtype]


# 32 registers: 28 of C, 2 of B (A is read from memory by the multiply-add itself); 16 registers:
# 12 of C, 2 of B, 1 of A; NEON has 32 registers of 128 bits: 24 of C, 4 of B, 1 of A.
UNITS = {unit.name: unit for unit in (
    Unit("avx512", 64, 14, 2), Unit("avx2", 32, 6, 2), Unit("neon", 16, 6, 4),
    Unit("portable", 16, 4, 2))}


def unit_of(machine, features):
    """The vector unit of a processor, from LLVM's list of its features ("+avx2,-avx512f,…")."""
    known = set(features.split(","))
    if {"+avx512f", "+avx512vl"} <= known:
        return UNITS["avx512"]
    if {"+avx2", "+fma"} <= known:
        return UNITS["avx2"]
    return UNITS["neon" if machine in ("aarch64", "arm64") else "portable"]


# --- LLVM code -----------------------------------------------------------------------------------

class Builder:
    """Builds the functions of one precision into an LLVM module, for one vector unit."""

    def __init__(self, module, unit, dtype):
        from llvmlite import ir
        self.ir, self.module, self.dtype = ir, module, dtype
        self.size, self.rows, self.vectors = SIZES[dtype], unit.rows, unit.vectors
        self.lanes = unit.width // self.size
        self.columns = unit.columns(dtype)
        self.number = ir.FloatType() if dtype == FLOAT32 else ir.DoubleType()
        self.index = ir.IntType(64)
        self.vector = ir.VectorType(self.number, self.lanes)
        kind = f"v{self.lanes}f{8 * self.size}"
        name = f"llvm.fma.{kind}"
        self.fma = ir.Function(module, ir.FunctionType(self.vector, [self.vector] * 3), name)

    def build(self):
        """All functions of this precision."""
        tiles = {(rows, keep): self.tile(rows, keep)
                 for rows in range(1, self.rows + 1) for keep in (0, 1)}
        self.choose_tile(tiles)
        self.pack()
        self.copy()
        for name, value in zip(NUMBERS, (self.rows, self.columns), strict=True):
            kind = self.ir.FunctionType(self.index, [])
            function = self.ir.Function(self.module, kind, SYMBOLS[name, self.dtype])
            self.ir.IRBuilder(function.append_basic_block("entry")).ret(self.index(value))

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

    def tile(self, rows, keep):
        """C[:rows, :columns] = or += A[:, :k] B[:k, :]; with ``keep`` B's rows are also packed."""
        function, build, x = self.function(f"tile_{self.dtype}_{rows}_{keep}",
                                           PARAMETERS["tile"][2:], internal=True)
        zero = self.ir.Constant(self.vector, [0.0] * self.lanes)
        starts = [self.at(build, x["a"], build.mul(x["a_row"], self.index(i)))
                  for i in range(rows)]

        def step(p, sums):
            row = [self.load(build, self.at(build, x["b"], build.mul(p, x["b_step"]),
                                            v * self.lanes)) for v in range(self.vectors)]
            if keep:
                kept = self.at(build, x["packed"], build.mul(p, self.index(self.columns)))
                for v, part in enumerate(row):
                    self.store(build, part, self.at(build, kept, v * self.lanes))
            offset, found = build.mul(p, x["a_step"]), []
            for i in range(rows):
                number = self.load(build, self.at(build, starts[i], offset), self.number)
                factor = self.in_every_lane(build, number)
                for v in range(self.vectors):
                    found.append(build.call(self.fma, [factor, row[v],
                                                       sums[i * self.vectors + v]]))
            return found
        sums = self.loop(build, x["k"], step, [zero] * (rows * self.vectors))
        places = [self.at(build, x["c"], build.mul(x["c_row"], self.index(i)), v * self.lanes)
                  for i in range(rows) for v in range(self.vectors)]
        with build.if_else(build.icmp_signed("!=", x["add"], self.index(0))) as (add, write):
            with add:
                for place, value in zip(places, sums, strict=True):
                    self.store(build, build.fadd(self.load(build, place), value), place)
            with write:
                for place, value in zip(places, sums, strict=True):
                    self.store(build, value, place)
        build.ret_void()
        return function

    def choose_tile(self, tiles):
        """tile(rows, keep, …): calls the tile of so many rows."""
        function, build, x = self.function(SYMBOLS["tile", self.dtype], PARAMETERS["tile"])
        nothing = function.append_basic_block("nothing")
        which = build.add(build.mul(x["rows"], self.index(2)), x["keep"])
        switch = build.switch(which, nothing)
        for (rows, keep), tile in tiles.items():
            block = function.append_basic_block(f"rows_{rows}_{keep}")
            switch.add_case(self.index(2 * rows + keep), block)
            build.position_at_end(block)
            build.call(tile, function.args[2:])
            build.ret_void()
        build.position_at_end(nothing)
        build.ret_void()

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

    def pack(self):
        """packed[p, j] = b[p, j] for ``columns`` columns j; the others get any numbers of B.

        Either ``b_column`` is 1, or ``b_step`` is and B is read as a transposed matrix. What the
        tile makes of the other columns is not used. No number outside of B is read.
        """
        zero, one, width = self.index(0), self.index(1), self.index(self.columns)
        _, build, x = self.function(SYMBOLS["pack", self.dtype], PARAMETERS["pack"])

        by_number, by_vector, squares = self.ways_to_pack(build, x)

        def rest(done):
            self.loop(build, build.sub(x["k"], done),
                      lambda p, _: by_number(build.add(p, done), _))

        with build.if_else(build.icmp_signed("!=", x["b_column"], one)) as (transposed, straight):
            with transposed:
                whole = build.icmp_signed("==", x["columns"], width)
                count = build.select(whole, build.sdiv(x["k"], self.index(self.lanes)), zero)
                self.loop(build, count, squares)
                rest(build.mul(count, self.index(self.lanes)))
            with straight:             # a vector may reach into the next rows, but not behind B
                beyond = build.sub(width, x["columns"])
                step = build.select(build.icmp_signed(">", x["b_step"], one), x["b_step"], one)
                short = build.sdiv(build.sub(build.add(beyond, step), one), step)
                count = build.sub(x["k"], short)
                count = build.select(build.icmp_signed(">", count, zero), count, zero)
                self.loop(build, count, by_vector)
                rest(count)
        build.ret_void()

    def ways_to_pack(self, build, x):
        """Three bodies of a loop: a row number by number, by vectors, or squares transposed."""
        width = self.index(self.columns)

        def place(p, j):
            return self.at(build, x["packed"], build.mul(p, width), j)

        def by_number(p, _):
            def element(j, _):
                found = self.load(build, self.at(build, x["b"], build.mul(p, x["b_step"]),
                                                 build.mul(j, x["b_column"])), self.number)
                self.store(build, found, place(p, j))
            self.loop(build, x["columns"], element)

        def by_vector(p, _):
            start = self.at(build, x["b"], build.mul(p, x["b_step"]))
            for v in range(self.vectors):
                part = self.load(build, self.at(build, start, v * self.lanes))
                self.store(build, part, place(p, v * self.lanes))

        def squares(square, _):
            p = build.mul(square, self.index(self.lanes))
            for v in range(self.vectors):
                rows = [self.load(build, self.at(
                    build, x["b"], p, build.mul(self.index(v * self.lanes + j), x["b_column"])))
                    for j in range(self.lanes)]
                for i, row in enumerate(self.transpose(build, rows)):
                    self.store(build, row, place(build.add(p, self.index(i)), v * self.lanes))
        return by_number, by_vector, squares

    def copy(self):
        """c[:rows, :columns] = or += a tile in a buffer: at the edge of C, or of its transpose."""
        _, build, x = self.function(SYMBOLS["copy", self.dtype], PARAMETERS["copy"])
        add = build.icmp_signed("!=", x["add"], self.index(0))

        def element(i, j):
            place = self.at(build, x["c"], build.mul(i, x["c_row"]), build.mul(j, x["c_column"]))
            value = self.load(build, self.at(build, x["tile"], build.mul(
                i, self.index(self.columns)), j), self.number)
            with build.if_else(add) as (then, otherwise):
                with then:
                    self.store(build, build.fadd(self.load(build, place, self.number), value),
                               place)
                with otherwise:
                    self.store(build, value, place)
        self.loop(build, x["rows"], lambda i, _: self.loop(
            build, x["columns"], lambda j, _: element(i, j)) and None)
        build.ret_void()


def module_text(unit, triple):
    """The LLVM code of all functions for a vector unit, as text."""
    from llvmlite import ir
    module = ir.Module("gemm_tile")
    module.triple = triple
    for dtype in SIZES:
        Builder(module, unit, dtype).build()
    return str(module)
