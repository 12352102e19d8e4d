package main

// mapTime compares the time to print the map of a chain.
func mapTime(b *bench) []figure {
	im := b.sevenLayers()
	m := b.alternate(
		func() float64 { return timed(func() { b.flatimg("map", "--json", im.Top) }) },
		func() float64 { return timed(func() { b.command("qemu-img", "map", "--output=json", im.Top) }) },
	)
	return []figure{{what: "map", ours: m[0], peer: m[1], unit: seconds, goal: 0.5}}
}
