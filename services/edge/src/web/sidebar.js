// sidebar
