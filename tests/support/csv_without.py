#!/usr/bin/python3
"""Print a CSV file without a column:  csv_without.py COLUMN FILE"""
import csv
import sys

with open(sys.argv[2], newline="") as file:
    rows = list(csv.reader(file))
at = rows[0].index(sys.argv[1])
csv.writer(sys.stdout).writerows(row[:at] + row[at + 1:] for row in rows)
