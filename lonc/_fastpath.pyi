from lonc._purepath import *
