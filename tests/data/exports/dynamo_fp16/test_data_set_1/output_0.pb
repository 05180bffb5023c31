
BlogitsJ
5.­²M£1°µ