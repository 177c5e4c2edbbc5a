"""What the tests share: leak detection, cancel sweeps, the two socket doors, faults on loopback."""
