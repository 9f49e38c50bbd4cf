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

from .vector_code import VectorCode

FLOAT32, FLOAT64 = "float32", "float64"
LINE, AHEAD = 64, 8     # bytes of a cache line; rows of B
SIZES = {FLOAT32: 4, FLOAT64: 8}
PARAMETERS = {          # of the compiled functions, all of them addresses or 64-bit integers
    "tile": ("rows", "a", "a_row", "a_step", "b", "b_step", "k", "c", "c_row", "add"),
    "pack": ("b", "b_step", "b_column", "packed", "k", "columns"),
    "pack_panels": ("b", "b_step", "packed", "k", "panels"),
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

class Builder(VectorCode):
    """Writes the functions of one precision, for one vector unit."""

    def __init__(self, module, unit, dtype):
        super().__init__(module, dtype, SIZES[dtype], unit.width // SIZES[dtype])
        self.rows, self.vectors, self.columns = unit.rows, unit.vectors, unit.columns(dtype)

    def build(self):
        """All functions of this precision."""
        self.choose_tile({rows: self.tile(rows) for rows in range(1, self.rows + 1)})
        self.pack()
        self.pack_panels()
        self.copy()
        for name, value in zip(NUMBERS, (self.rows, self.columns), strict=True):
            kind = self.ir.FunctionType(self.index, [])
            function = self.ir.Function(self.module, kind, SYMBOLS[name, self.dtype])
            self.ir.IRBuilder(function.append_basic_block("entry")).ret(self.index(value))

    def tile(self, rows):
        """C[:rows, :columns] = or += A[:, :k] B[:k, :]."""
        function, build, x = self.function(f"tile_{self.dtype}_{rows}", PARAMETERS["tile"][1:],
                                           internal=True)
        zero = self.ir.Constant(self.vector, [0.0] * self.lanes)
        starts = [self.at(build, x["a"], build.mul(x["a_row"], self.index(i)))
                  for i in range(rows)]

        def step(p, sums):
            row = [self.load(build, self.at(build, x["b"], build.mul(p, x["b_step"]),
                                            v * self.lanes)) for v in range(self.vectors)]
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
        """tile(rows, …): calls the tile of so many rows."""
        function, build, x = self.function(SYMBOLS["tile", self.dtype], PARAMETERS["tile"])
        nothing = function.append_basic_block("nothing")
        switch = build.switch(x["rows"], nothing)
        for rows, tile in tiles.items():
            block = function.append_basic_block(f"rows_{rows}")
            switch.add_case(self.index(rows), block)
            build.position_at_end(block)
            build.call(tile, function.args[1:])
            build.ret_void()
        build.position_at_end(nothing)
        build.ret_void()

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

    def pack_panels(self):
        """Pack ``panels`` whole panels that lie side by side, row by row of B.

        A row of all panels is one stretch of memory, in a page of its own if B is wide. It is
        fetched AHEAD rows before it is read, since the processor does not look beyond a page.
        """
        _, build, x = self.function(SYMBOLS["pack_panels", self.dtype], PARAMETERS["pack_panels"])
        size = build.mul(x["k"], self.index(self.columns))

        def row(p, _):
            source = self.at(build, x["b"], build.mul(p, x["b_step"]))
            target = self.at(build, x["packed"], build.mul(p, self.index(self.columns)))
            ahead = build.mul(x["b_step"], self.index(AHEAD))

            def part(j, _):
                start = self.at(build, source, build.mul(j, self.index(self.columns)))
                for line in range(0, self.columns * self.size, LINE):
                    self.prefetch(build, build.add(self.at(build, start, ahead), self.index(line)))
                for v in range(self.vectors):
                    self.store(build, self.load(build, self.at(build, start, v * self.lanes)),
                               self.at(build, target, build.mul(j, size), v * self.lanes))
            self.loop(build, x["panels"], part)
        self.loop(build, x["k"], row)
        build.ret_void()

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
