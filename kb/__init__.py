"""Knowledge as data: pages a person reads and tables that pages, advice and estimates stand on."""
